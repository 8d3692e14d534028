//! What must be opened inside a namespace and is then handed to somebody with fewer rights: taps and sockets.

use crate::{Error, Netns, Result};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const SO_LOCK_FILTER: libc::c_int = 44;

/// A tap. Without `IFF_VNET_HDR` QEMU could not take over checksums and segmentation. Not persistent: the link goes
/// with the last descriptor. The namespace is that in which `/dev/net/tun` is opened.
pub fn tap(ns: &Netns, name: &str) -> Result<OwnedFd> {
    let mut request = [0u8; 40];
    if name.len() > crate::link::NAME_MOST {
        return Err(Error::tool(format!("tap {name}"), "the name is too long"));
    }
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).to_ne_bytes());
    ns.run(move || {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .map_err(|e| Error::os("open /dev/net/tun", e))?;
        // SAFETY: TUNSETIFF reads a `struct ifreq` of 40 bytes.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, request.as_mut_ptr()) } != 0 {
            return Err(Error::last("make a tap"));
        }
        // SAFETY: the descriptor is open; QEMU expects it non-blocking.
        unsafe {
            let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
            libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK);
        }
        Ok(file.into())
    })
}

fn set_option(fd: &impl AsRawFd, level: i32, option: i32, value: &[u8], what: &str) -> Result<()> {
    // SAFETY: pointer and length describe `value`.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.as_ptr().cast(), value.len() as u32) };
    if rc == 0 { Ok(()) } else { Err(Error::last(what)) }
}

fn socket(domain: i32, kind: i32, what: &str) -> Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor is owned at once.
    unsafe {
        let fd = libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { Err(Error::last(what)) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn bind4(fd: &OwnedFd, ip: Ipv4Addr, port: u16, what: &str) -> Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: pointer and length describe `address`.
    let rc = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    if rc == 0 { Ok(()) } else { Err(Error::last(what)) }
}

/// UDP port 67 on one link: what a DHCP server listens on.
pub fn dhcp_socket(ns: &Netns, link: &str) -> Result<UdpSocket> {
    ns.run(|| {
        let what = "open UDP port 67";
        let on = 1i32.to_ne_bytes();
        let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, what)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on, what)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_BROADCAST, &on, what)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, link.as_bytes(), what)?;
        bind4(&fd, Ipv4Addr::UNSPECIFIED, 67, what)?;
        let socket = UdpSocket::from(fd);
        socket.set_nonblocking(true).map_err(|e| Error::os(what, e))?;
        Ok(socket)
    })
}

/// A listening TCP socket on one link. The address must stand on the link.
pub fn listener(ns: &Netns, link: &str, ip: Ipv4Addr, port: u16) -> Result<TcpListener> {
    ns.run(|| {
        let what = format!("listen on {ip}:{port}");
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, &what)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32.to_ne_bytes(), &what)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, link.as_bytes(), &what)?;
        bind4(&fd, ip, port, &what)?;
        // SAFETY: a plain system call on an open descriptor.
        if unsafe { libc::listen(fd.as_raw_fd(), 64) } != 0 {
            return Err(Error::last(what));
        }
        let listener = TcpListener::from(fd);
        listener.set_nonblocking(true).map_err(|e| Error::os(what, e))?;
        Ok(listener)
    })
}

/// A socket that can send frames by one link and receive nothing: a filter that drops all is locked onto it, since
/// whoever holds a packet socket could otherwise bind it anew without any privilege and listen to everybody.
pub fn send_only_packet_socket(ns: &Netns, link: &str) -> Result<OwnedFd> {
    let index = crate::link::index(ns, link)?;
    ns.run(|| {
        let what = "open a packet socket";
        let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, what)?;
        let mut drop_all = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
        let program = libc::sock_fprog { len: 1, filter: drop_all.as_mut_ptr() };
        // SAFETY: pointer and length describe `program`, whose filter lives across the call.
        let rc = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as u32,
            )
        };
        if rc != 0 {
            return Err(Error::last("attach a filter"));
        }
        set_option(&fd, libc::SOL_SOCKET, SO_LOCK_FILTER, &1i32.to_ne_bytes(), "lock a filter")?;
        // SAFETY: an all-zero sockaddr_ll is valid; pointer and length describe it.
        let rc = unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = index as i32;
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
        };
        if rc == 0 { Ok(fd) } else { Err(Error::last("bind a packet socket")) }
    })
}

/// Tells a link's neighbours who has an address: a gratuitous ARP reply and a request, as some listen only to one.
pub fn announce(ns: &Netns, link: &str, mac: [u8; 6], addresses: &[Ipv4Addr]) -> Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let fd = send_only_packet_socket(ns, link)?;
    for address in addresses {
        for operation in [2u8, 1] {
            let frame = gratuitous_arp(mac, *address, operation);
            // SAFETY: pointer and length describe `frame`.
            if unsafe { libc::send(fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) } < 0 {
                return Err(Error::last(format!("announce {address}")));
            }
        }
    }
    Ok(())
}

fn gratuitous_arp(mac: [u8; 6], address: Ipv4Addr, operation: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&address.octets());
    frame
}
