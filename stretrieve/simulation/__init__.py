"""Simulated tissue for the demo, the documentation and the tests; never a stand-in for data."""

from __future__ import annotations

from stretrieve.simulation.demo_data import DemoData, demo_data, write_demo_data
from stretrieve.simulation.programmes import Programmes, make_programmes
from stretrieve.simulation.section import SimulatedSection, simulate_section
from stretrieve.simulation.settings import TissueSettings
from stretrieve.simulation.tissue import REGIONS, STATES, Region, State, TissueMap
from stretrieve.simulation.write import WrittenSection, write_pyramid, write_section

__all__ = [
    "REGIONS",
    "STATES",
    "DemoData",
    "Programmes",
    "Region",
    "SimulatedSection",
    "State",
    "TissueMap",
    "TissueSettings",
    "WrittenSection",
    "demo_data",
    "make_programmes",
    "simulate_section",
    "write_demo_data",
    "write_pyramid",
    "write_section",
]
