"""Contract suites for plug-ins and the parity check; nothing but tests imports this package."""
