"""Events to slates: producer, event-time join, feedback table, consumer."""
