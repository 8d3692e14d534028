//! Networks on this host: namespaces, bridges, taps, routers and their rules.
