"""Where the person and the policy meet: devices, arbitration, the loop, episodes."""
