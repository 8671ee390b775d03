"""The process and the machine: signals, stalls, memory, devices."""
