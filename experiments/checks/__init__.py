"""Long checks against other code, of every method, and of many steps."""
