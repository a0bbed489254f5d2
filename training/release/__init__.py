"""Publishing: exported engines become a release, atomically and never over another one."""
