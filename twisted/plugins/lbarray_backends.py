"""Balance policies and health checks that come with lbarray, named as text."""

from lbarray.plugin import PolicyMaker, ProbeMaker

round_robin = PolicyMaker(
    "round-robin",
    "In turn, by weight: for requests that all cost about the same.",
    "lbarray.backends.policies.round_robin:RoundRobin",
)
least_outstanding = PolicyMaker(
    "least-outstanding",
    "Whoever has the fewest requests in hand: for requests that cost very differently.",
    "lbarray.backends.policies.least_outstanding:LeastOutstanding",
)
peak_ewma = PolicyMaker(
    "peak-ewma",
    "The better of two drawn by lot, by latency and requests in hand: for back ends that differ or become slow.",
    "lbarray.backends.policies.peak_ewma:PeakEwma",
)
consistent_hash = PolicyMaker(
    "consistent-hash",
    "The same key to the same back end until it has too much: for back ends that cache.",
    "lbarray.backends.policies.consistent_hash:ConsistentHash",
)
by_lot = PolicyMaker(
    "random",
    "By lot, by weight: for very many nodes that know nothing of each other.",
    "lbarray.backends.policies.random_choice:RandomChoice",
)

tcp = ProbeMaker("tcp", "It takes a connection.", "lbarray.backends.probes.tcp:TcpProbe")
http = ProbeMaker("http", "It answers a request as wanted.", "lbarray.backends.probes.http:HttpProbe")
tls = ProbeMaker("tls", "It completes a TLS handshake.", "lbarray.backends.probes.tls:TlsProbe")
script = ProbeMaker("script", "A program says so.", "lbarray.backends.probes.script:ScriptProbe")
