//! DHCP by its messages.

use super::*;
use agent_api::NetworkSpec;
use dhcproto::v4::{self, DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use proptest::prelude::*;

const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 0x11];

fn view() -> NetworkView {
    let subnet = SubnetSpec {
        id: "s".into(),
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: Some([10, 0, 0, 1].into()),
        dhcp: true,
        dns: vec![[192, 0, 2, 53].into()],
        host_routes: vec![("10.9.0.0/16".parse().unwrap(), [10, 0, 0, 9].into())],
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
    };
    let port = PortSpec {
        id: "p".into(),
        network: "n".into(),
        server: Some("g".into()),
        mac: netlink::mac_text(&MAC),
        fixed_ips: vec![("s".into(), [10, 0, 0, 11].into())],
        admin_state_up: true,
        port_security: true,
        security_groups: vec![],
        allowed_address_pairs: vec![],
        hostname: Some("host-a".into()),
        extra_dhcp_opts: vec![("bootfile-name".into(), "pxe.0".into()), ("42".into(), "10.0.0.7".into())],
    };
    let spec = NetworkSpec {
        id: "n".into(),
        mtu: 1450,
        admin_state_up: true,
        subnets: vec![subnet],
        external: None,
        service_mac: None,
        service_addresses: vec![[10, 0, 0, 2].into()],
    };
    NetworkView { spec, mac: [2, 0, 0, 0, 0, 2], ports: vec![port] }
}

/// A request as another implementation writes it.
fn request(kind: MessageType, change: impl FnOnce(&mut Message)) -> Option<Query> {
    let any = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, any, any, any, any, &MAC);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    change(&mut message);
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    parse(&bytes)
}

fn read(reply: &Reply) -> Message {
    Message::decode(&mut Decoder::new(&reply.bytes)).unwrap()
}

#[test]
fn a_known_mac_is_offered_its_address_with_all_it_needs() {
    let query = request(MessageType::Discover, |_| ()).unwrap();
    let reply = answer(&view(), &query).unwrap();
    assert_eq!(reply.way, Way::Frame([10, 0, 0, 11].into()));
    let message = read(&reply);
    assert_eq!((message.xid(), message.yiaddr()), (7, [10, 0, 0, 11].into()));
    let get = |code| message.opts().get(code).cloned();
    assert_eq!(get(OptionCode::MessageType), Some(DhcpOption::MessageType(MessageType::Offer)));
    assert_eq!(get(OptionCode::ServerIdentifier), Some(DhcpOption::ServerIdentifier([10, 0, 0, 2].into())));
    assert_eq!(get(OptionCode::SubnetMask), Some(DhcpOption::SubnetMask([255, 255, 255, 0].into())));
    assert_eq!(get(OptionCode::Router), Some(DhcpOption::Router(vec![[10, 0, 0, 1].into()])));
    assert_eq!(get(OptionCode::DomainNameServer), Some(DhcpOption::DomainNameServer(vec![[192, 0, 2, 53].into()])));
    assert_eq!(get(OptionCode::InterfaceMtu), Some(DhcpOption::InterfaceMtu(1450)));
    assert_eq!(get(OptionCode::Hostname), Some(DhcpOption::Hostname("host-a".into())));
    assert_eq!(get(OptionCode::Renewal), Some(DhcpOption::Renewal(43_200)));
    assert_eq!(get(OptionCode::Rebinding), Some(DhcpOption::Rebinding(75_600)));
    assert_eq!(get(OptionCode::BootfileName), Some(DhcpOption::BootfileName(b"pxe.0".to_vec())));
    assert_eq!(get(OptionCode::NtpServers), Some(DhcpOption::NtpServers(vec![[10, 0, 0, 7].into()])));
    let routes = |net: &str, via: [u8; 4]| (net.parse::<Ipv4Net>().unwrap(), Ipv4Addr::from(via));
    let wanted = vec![
        routes("169.254.169.254/32", [10, 0, 0, 2]),
        routes("10.9.0.0/16", [10, 0, 0, 9]),
        routes("0.0.0.0/0", [10, 0, 0, 1]),
    ];
    assert_eq!(get(OptionCode::ClasslessStaticRoute), Some(DhcpOption::ClasslessStaticRoute(wanted)));
}

#[test]
fn requests_are_acknowledged_refused_or_left_to_another_server() {
    let ask = |change: &dyn Fn(&mut Message)| request(MessageType::Request, |m| change(m)).unwrap();
    let kind = |query: &Query| answer(&view(), query).map(|reply| (read(&reply).opts().msg_type().unwrap(), reply.way));
    let want =
        |ip: [u8; 4]| move |m: &mut Message| drop(m.opts_mut().insert(DhcpOption::RequestedIpAddress(ip.into())));
    assert_eq!(kind(&ask(&want([10, 0, 0, 11]))), Some((MessageType::Ack, Way::Frame([10, 0, 0, 11].into()))));
    assert_eq!(kind(&ask(&want([10, 0, 0, 77]))), Some((MessageType::Nak, Way::Broadcast)));
    let renew = ask(&|m| {
        m.set_ciaddr([10, 0, 0, 11]);
    });
    assert_eq!(kind(&renew), Some((MessageType::Ack, Way::To([10, 0, 0, 11].into()))));
    let other = ask(&|m| {
        want([10, 0, 0, 11])(m);
        m.opts_mut().insert(DhcpOption::ServerIdentifier([10, 0, 0, 99].into()));
    });
    assert_eq!(kind(&other), None);
    let loud = ask(&|m| {
        want([10, 0, 0, 11])(m);
        m.set_flags(v4::Flags::default().set_broadcast());
    });
    assert_eq!(kind(&loud), Some((MessageType::Ack, Way::Broadcast)));
    let inform = request(MessageType::Inform, |m| {
        m.set_ciaddr([10, 0, 0, 11]);
    })
    .unwrap();
    let reply = read(&answer(&view(), &inform).unwrap());
    assert_eq!((reply.yiaddr(), reply.opts().get(OptionCode::AddressLeaseTime)), (Ipv4Addr::UNSPECIFIED, None));
    assert_eq!(request(MessageType::Release, |_| ()).and_then(|q| answer(&view(), &q)), None);
}

#[test]
fn silence_for_unknown_macs_subnets_without_dhcp_and_relays() {
    let query = request(MessageType::Discover, |_| ()).unwrap();
    assert_eq!(answer(&view(), &Query { mac: [2; 6], ..query.clone() }), None);
    let mut off = view();
    off.spec.subnets[0].dhcp = false;
    assert_eq!(answer(&off, &query), None);
    assert_eq!(answer(&view(), &Query { relay: [10, 0, 0, 3].into(), ..query }), None);
}

#[test]
fn an_answer_keeps_to_the_size_that_the_client_takes() {
    let mut view = view();
    view.ports[0].extra_dhcp_opts = (128..=250).map(|n| (n.to_string(), "x".repeat(200))).collect();
    let reply = answer(&view, &request(MessageType::Discover, |_| ()).unwrap()).unwrap();
    assert!(reply.bytes.len() <= 548, "{}", reply.bytes.len());
    assert!(read(&reply).opts().get(OptionCode::ClasslessStaticRoute).is_some());
}

proptest! {
    #[test]
    fn whatever_a_guest_sends_is_read_without_harm(tail in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..700) {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.resize(FIXED - 4, 0);
        bytes.extend(COOKIE);
        bytes.extend(tail);
        bytes.truncate(cut);
        if let Some(query) = parse(&bytes) {
            let mut known = view();
            known.ports[0].mac = netlink::mac_text(&query.mac);
            answer(&known, &query);
        }
    }
}
