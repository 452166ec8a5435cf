"""What the project promises about itself as a package: import, contents, set-up."""
