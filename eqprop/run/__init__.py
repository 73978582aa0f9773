"""The program around the library: configurations, run folders, sweeps, studies. The only part that knows Hydra."""
