"""From action chunk to controller: strategies, latency, observation sync, safety, kinematics, robot specs."""
