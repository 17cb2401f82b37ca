"""Start the service on this machine, wait until it answers, and leave nothing behind.

- child: `serve run CONFIG` in a new Ray, at whose metrics port: Serve's own command has no word for
  it
- environment: What the child `serve run` finds: its directory, its environment, and the config it
  is given
- ingress: The HTTP proxy in front: HAProxy where its binary runs, else Serve's own; how its door
  closes
- kept_logs: The logs of the last runs: kept however a run ends, within so many runs and bytes
- launcher: `serve run` as a child: started, watched until it answers, followed, stopped
- log_lines: Serve's log files as lines: of all its processes on one machine, in the order of time
- plan: What a Serve config asks of the machine, read from the checked YAML
- ports: Which TCP ports are taken, by whom, and which are claimed by a start that is under way
- preflight: What would make the start fail, found before it: each finding with number, limit and
  cure
- processes: The processes of one run: found by the run's name in their environment, or by the
  session that they share with such a process; stopped by pid
- progress: How far a start has come: what `serve run` prints, and what Ray's dashboard says
- targets: Where Prometheus finds the metrics of what runs on this machine: a file that it looks at
  again
- token_file: Ray's token: whoever holds it can run code in the cluster, so its file is its owner's
  alone

deploying and cli import it. It imports config, engines and all below.
"""
