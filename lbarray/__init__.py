"""lbarray: a decrypting load balancing array, one Twisted daemon per node."""
