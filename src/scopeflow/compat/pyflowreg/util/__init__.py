"""Helpers under the names of PyFlowReg."""
