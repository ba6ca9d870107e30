"""Readers and generators of data sets, returning numpy arrays; nothing here touches a device."""
