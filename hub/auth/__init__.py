"""Who somebody is, how it is proven, and what that member may."""
