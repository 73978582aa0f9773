"""Programs around the library: Hydra, devices, run folders, tables and figures. No numerics here."""
