"""`streamer bench`: how fast a broker is, seen from one client on this machine."""
