//! `nubo netd`: DHCP, router advertisements, DNS and metadata, served without privileges from passed sockets.
