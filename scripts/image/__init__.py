"""The image: built, tried and described by docker or podman; scripts/build_image.py is its command.

- engine: docker or podman, by their command line
- proof: What a container of the image does: answers, KubeRay's probes, a read-only root
- sbom: The image's packages, Python's and Debian's, as CycloneDX
- sizes: Layers of the image, and the packages that fill them
- stand_in: A base image out of Debian's packages, where no registry can be reached
"""
