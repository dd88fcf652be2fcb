"""The server: wire shapes, engines that answer many at once, what is remembered and watched."""
