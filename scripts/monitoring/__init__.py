"""The dashboard and the rules of k8s/monitoring: what they ask Prometheus, and how they are made.

- panels: The dashboard as a list: sections, panels, queries
- grafana: The same as Grafana's JSON
- rules: The rules file, and the manifest for Prometheus' operator made of it
- prometheus: A running Prometheus, asked over its HTTP API
- pictures: The panels as pictures, of a Prometheus' data, where there is no Grafana to draw them

scripts/render_monitoring.py renders k8s/monitoring from it.
"""
