"""What an operator sees: rules and dashboard for Prometheus and Grafana, and the metrics of batch
commands. See docs/monitoring.md."""
