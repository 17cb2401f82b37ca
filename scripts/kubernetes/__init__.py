"""What k8s/ is rendered from, and how it is checked without a cluster.

- targets: the RayServices that are rendered (gpu, cpu, local): config, pods, groups
- rayservice: a Serve config and a target → the RayService as YAML
- overlays: `kubectl kustomize` of a folder → its documents
- schemas: Kubernetes' JSON schemas, KubeRay's CRDs, and the few other kinds that k8s/ has
- kuberay: what KubeRay's operator refuses though its schema takes it
- service: serveConfigV2, versions, and names that must meet
- policies: what no pod of ours may do
- check: all of these, over one rendered folder
"""
