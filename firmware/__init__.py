"""What a technician flashes, and the tools on the technician's laptop that flash and provision a box."""
