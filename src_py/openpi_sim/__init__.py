"""MuJoCo worlds of the robots and the scripted experts that solve their tasks; no ROS."""
