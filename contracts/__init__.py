"""What the parts of the bundle agree on: features, slates, datasets and release manifests.

Typed structs (msgspec) with strict reading. This package imports neither torch nor any other
package of the project, so that a ranking server can use it alone.
"""
