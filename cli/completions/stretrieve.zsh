#compdef stretrieve

_stretrieve_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _STRETRIEVE_COMPLETE=complete_zsh stretrieve)
}

compdef _stretrieve_completion stretrieve
