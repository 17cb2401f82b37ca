"""Start the service on this machine, wait until it answers, and leave nothing behind.

plan        what the YAML asks for: port, model, CPUs, GPUs
machine     what this machine has: memory, shared memory, CPUs, GPUs
ports       who holds a port, and which are free
preflight   plan against machine, before anything is started
ingress     HAProxy or Serve's Python proxy
rundir      a private directory per run; every process of the run carries its name
processes   find and stop exactly those processes
environment what the child `serve run` finds in its environment
drain       the front door closed, and what is inside answered, before all that ends
progress    how far the start has come, from Ray's dashboard
childlog    the child's output: kept, followed, condensed
launcher    all of it in order
"""
