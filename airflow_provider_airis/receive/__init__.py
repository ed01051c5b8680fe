"""The way back: what people do in the systems that alerts are told to, a module a system."""
