"""A plain loop for a robot without ROS: environment, agent, subscribers."""
