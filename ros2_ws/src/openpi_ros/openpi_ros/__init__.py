"""The ROS 2 nodes of openpi: thin shells around `openpi_runtime` and `openpi`."""
