"""What ``deploy/manifests.py`` knows of Kubernetes: rendering, schemas, rules, references."""
