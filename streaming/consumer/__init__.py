"""The consumer of docs/streaming.md: events to closed slates, without losing any."""
