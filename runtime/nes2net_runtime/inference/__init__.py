"""Where and how a bundle's stages run: providers, sessions, engines, pipelines, and which is fastest here."""
