"""LIBERO: its worlds in the shape a policy sees, a scripted expert, and the published evaluation protocol.

Runs in the environment of `make setup-libero` (LIBERO's pins differ from the project's), so nothing here imports
anything of the project but `openpi_client`, the small parts of `openpi_runtime`, and NumPy.
"""
