//! Neutron's own names and sentences for what can go wrong. Each function is one condition.

use base::Fault;

macro_rules! faults {
    ($($name:ident($($arg:ident),*) = $kind:ident $type:literal $text:literal;)*) => { $(
        pub fn $name($($arg: impl std::fmt::Display),*) -> Fault { Fault::$kind(format!($text)).named($type) }
    )* };
}

faults! {
    network_not_found(id) = not_found "NetworkNotFound" "Network {id} could not be found.";
    subnet_not_found(id) = not_found "SubnetNotFound" "Subnet {id} could not be found.";
    port_not_found(id) = not_found "PortNotFound" "Port {id} could not be found.";
    router_not_found(id) = not_found "RouterNotFound" "Router {id} could not be found";
    floating_ip_not_found(id) = not_found "FloatingIPNotFound" "Floating IP {id} could not be found";
    security_group_not_found(id) = not_found "SecurityGroupNotFound" "Security group {id} does not exist";
    security_group_rule_not_found(id) = not_found "SecurityGroupRuleNotFound" "Security group rule {id} does not exist";
    tag_not_found(tag) = not_found "TagNotFound" "Tag {tag} could not be found.";
    extension_not_found(alias) = not_found "HTTPNotFound" "Extension with alias {alias} does not exist";
    project_quota_not_found(id) = not_found "TenantQuotaNotFound" "Quota for tenant {id} could not be found.";

    bad_request(message) = invalid "HTTPBadRequest" "{message}";
    invalid_attribute(name, reason) = invalid "HTTPBadRequest" "Invalid input for {name}. Reason: {reason}.";
    invalid_input(message) = invalid "InvalidInput" "Invalid input for operation: {message}.";
    bad(resource, message) = invalid "BadRequest" "Bad {resource} request: {message}.";

    network_in_use(id) = conflict "NetworkInUse" "Unable to complete operation on network {id}. There are one or more ports still in use on the network.";
    subnet_in_use(id) = conflict "SubnetInUse" "Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet.";
    port_in_use(id, network, device) = conflict "PortInUse" "Unable to complete operation on port {id} for network {network}. Port already has an attached device {device}.";
    holds_floating(id, floating) = conflict "PortInUse" "Port {id} holds the address of floating IP {floating}, which keeps it: make another floating IP instead.";
    service_port_in_use(id, reason) = conflict "ServicePortInUse" "Port {id} cannot be deleted directly via the port API: {reason}.";
    port_bound(id, old, new) = conflict "PortBound" "Unable to complete operation on port {id}, port is already bound, port type: bridge, old_mac {old}, new_mac {new}.";
    unsupported_owner(op, owner, id) = conflict "UnsupportedPortDeviceOwner" "Operation {op} is not supported for device_owner {owner} on port {id}.";
    mac_in_use(network, mac) = conflict "MacAddressInUse" "Unable to complete operation for network {network}. The mac address {mac} is in use.";
    mac_generation_failed(network) = unavailable "MacAddressGenerationFailure" "Unable to generate unique mac on network {network}.";
    address_in_use(network, address) = conflict "IpAddressInUse" "Unable to complete operation for network {network}. The IP address {address} is in use.";
    addresses_exhausted(network) = conflict "IpAddressGenerationFailure" "No more IP addresses available on network {network}.";
    invalid_ip_for_network(address) = invalid "InvalidIpForNetwork" "IP address {address} is not a valid IP for any of the subnets on the specified network.";
    invalid_ip_for_subnet(address) = invalid "InvalidIpForSubnet" "IP address {address} is not a valid IP for the specified subnet.";
    flat_network_in_use(physical) = conflict "FlatNetworkInUse" "Unable to create the flat network. Physical network {physical} is in use.";
    tunnel_in_use(id) = conflict "TunnelIdInUse" "Unable to create the network. The tunnel ID {id} is in use.";
    shared_in_use(id) = conflict "InvalidSharedSetting" "Unable to reconfigure sharing settings for network {id}. Multiple projects are using it.";
    external_in_use(id) = conflict "ExternalNetworkInUse" "External network {id} cannot be updated to be made non-external, since it has existing gateway ports.";

    invalid_pool(pool) = invalid "InvalidAllocationPool" "The allocation pool {pool} is not valid.";
    overlapping_pools(one, two, cidr) = conflict "OverlappingAllocationPools" "Found overlapping allocation pools: {one} {two} for subnet {cidr}.";
    pool_out_of_bounds(pool, cidr) = invalid "OutOfBoundsAllocationPool" "The allocation pool {pool} spans beyond the subnet cidr {cidr}.";
    gateway_in_pool(gateway, pool) = conflict "GatewayConflictWithAllocationPools" "Gateway ip {gateway} conflicts with allocation pool {pool}.";
    gateway_in_use(gateway, port) = conflict "GatewayIpInUse" "Current gateway ip {gateway} already in use by port {port}. Unable to update.";
    too_many_nameservers(most) = invalid "DNSNameServersExhausted" "Unable to complete operation. The number of DNS nameservers exceeds the limit {most}.";
    too_many_host_routes(most) = invalid "HostRoutesExhausted" "Unable to complete operation. The number of host routes exceeds the limit {most}.";

    groups_need_security() = invalid "PortSecurityAndIPRequiredForSecurityGroups" "Port security must be enabled and port must have an IP address in order to use security groups.";
    has_groups() = conflict "PortSecurityPortHasSecurityGroup" "Port has security group associated. Cannot disable port security or IP address until security group is removed.";
    pairs_need_security() = conflict "AddressPairAndPortSecurityRequired" "Port Security must be enabled in order to have allowed address pairs on a port.";

    router_in_use(id) = conflict "RouterInUse" "Router {id} still has ports";
    router_interface_not_found(router, port) = not_found "RouterInterfaceNotFound" "Router {router} does not have an interface with id {port}";
    router_interface_not_found_for_subnet(router, subnet) = not_found "RouterInterfaceNotFoundForSubnet" "Router {router} has no interface on subnet {subnet}";
    router_interface_used_by_floating(router, subnet) = conflict "RouterInterfaceInUseByFloatingIP" "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is required by one or more floating IPs.";
    router_interface_used_by_route(router, subnet) = conflict "RouterInterfaceInUseByRoute" "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is required by one or more routes.";
    gateway_used_by_floating(router, network) = conflict "RouterExternalGatewayInUseByFloatingIp" "Gateway cannot be updated for router {router}, since a gateway to external network {network} is required by one or more floating IPs.";
    subnet_mismatch(port, subnet) = invalid "SubnetMismatchForPort" "Subnet on port {port} does not match the requested subnet {subnet}.";
    invalid_routes(routes, reason) = invalid "InvalidRoutes" "Invalid format for routes: {routes}, {reason}";
    too_many_routes(router, most) = invalid "RoutesExhausted" "Unable to complete operation for {router}. The number of routes exceeds the maximum {most}.";

    no_external_gateway(network, subnet, port) = not_found "ExternalGatewayForFloatingIPNotFound" "External network {network} is not reachable from subnet {subnet}.  Therefore, cannot associate Port {port} with a Floating IP.";
    already_associated(address, id, port, fixed, network) = conflict "FloatingIPPortAlreadyAssociated" "Cannot associate floating IP {address} ({id}) with port {port} using fixed IP {fixed}, as that fixed IP already has a floating IP on external network {network}.";

    security_group_in_use(id) = conflict "SecurityGroupInUse" "Security Group {id} in use.";
    cannot_remove_default() = conflict "SecurityGroupCannotRemoveDefault" "Insufficient rights for removing default security group.";
    cannot_update_default() = conflict "SecurityGroupCannotUpdateDefault" "Updating default security group not allowed.";
    default_exists() = conflict "SecurityGroupDefaultAlreadyExists" "Default security group already exists.";
    rule_exists(id) = conflict "SecurityGroupRuleExists" "Security group rule already exists. Rule id is {id}.";
    invalid_port_range() = invalid "SecurityGroupInvalidPortRange" "For TCP/UDP protocols, port_range_min must be <= port_range_max";
    invalid_protocol_for_port(protocol) = invalid "SecurityGroupInvalidProtocolForPort" "Ports cannot be specified for protocol {protocol}. Ports are only supported for dccp, sctp, tcp, udp, udplite.";
    invalid_port_value(port) = invalid "SecurityGroupInvalidPortValue" "Invalid value for port {port}";
    invalid_icmp(field, attribute, value) = invalid "SecurityGroupInvalidIcmpValue" "Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255.";
    missing_icmp_type(code) = invalid "SecurityGroupMissingIcmpType" "ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing.";
    ethertype_conflict(ethertype, protocol) = invalid "SecurityGroupEthertypeConflictWithProtocol" "Invalid ethertype {ethertype} for protocol {protocol}.";
    prefix_conflict(ethertype, cidr) = invalid "SecurityGroupRuleParameterConflict" "Conflicting value ethertype {ethertype} for CIDR {cidr}";
    invalid_rule_protocol(protocol) = invalid "SecurityGroupRuleInvalidProtocol" "Security group rule protocol {protocol} not supported. Only protocol names such as tcp, udp and icmp, and integer representations [0 to 255] are supported.";
    invalid_ethertype(ethertype) = invalid "SecurityGroupRuleInvalidEtherType" "Security group rule for ethertype '{ethertype}' not supported. Allowed values are ['IPv4', 'IPv6'].";
    multiple_remotes() = invalid "SecurityGroupMultipleRemoteEntites" "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.";
    protocol_required() = invalid "SecurityGroupProtocolRequiredWithPorts" "Must also specify protocol if port range is given.";

    over_quota(resource) = quota "OverQuota" "Quota exceeded for resources: ['{resource}'].";
    quota_below_usage(resource, limit, used) = conflict "QuotaUnderflow" "Quota limit {limit} for {resource} must be greater than or equal to already used {used}.";
    not_authorized(rule) = forbidden "PolicyNotAuthorized" "rule:{rule} is disallowed by policy";
}

/// 412: the document has moved on since the caller looked.
pub fn revision_mismatch(wanted: u64, now: u64) -> Fault {
    Fault::precondition(format!("Constrained to {wanted}, but current revision is {now}"))
        .named("RevisionNumberConstraintFailed")
}
