"""Which internal features a detector uses for which class (VEBI, Oramas et al., ICLR 2019)."""
