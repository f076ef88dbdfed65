"""The properties that torture.properties holds against drawn inputs."""
