"""ResNet image towers, which PMC-CLIP, MedCLIP, BioViL, PubMedCLIP and open_clip share."""
