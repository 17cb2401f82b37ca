"""Start the service on this machine, wait until it answers, and leave nothing behind.

- childlog: The output of `serve run`: followed as it grows, and condensed to what a reader needs
- drain: The front door is closed and what is inside answered, before Serve ends
- environment: What the child `serve run` finds in its environment, and the config it is given
- ingress: Which HTTP proxy stands in front: HAProxy where its binary runs, else Serve's own
- launcher: `serve run` as a child: started, watched until it answers, followed, stopped
- machine_check: What a look at this machine finds wrong with a config: files that are missing or
  wrong, and more CPUs asked for than there are
- plan: What a Serve config asks of the machine, read from the checked YAML
- ports: Which TCP ports are taken, and by whom
- preflight: What would make the start fail, found before it: each finding with number, limit and
  cure
- processes: The processes of one run: found by the run's name in their environment, or by the
  session that they share with such a process; stopped by pid
- progress: How far the deployment has come, from the REST API of Ray's dashboard
- rundir: A private directory per run: Ray's session, HAProxy's sockets and config, the log
- signals: Ctrl-C and its kin as events, so that stopping is a step of the programme and not an
  accident
- token_file: Ray's token: whoever holds it can run code in the cluster, so its file is its owner's
  alone

deploying and cli import it. It imports config, engines and all below.
"""
