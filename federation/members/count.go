package members

// Known returns how many nodes are alive as this node sees it, itself included; of an edge with several hubs, among
// those of the hub with the most. It is zero before the first link.
func (m *Members) Known() int {
	m.mu.Lock()
	nodes := make([]*node, 0, len(m.nodes))
	for _, n := range m.nodes {
		nodes = append(nodes, n)
	}
	m.mu.Unlock()
	most := 0
	for _, n := range nodes {
		most = max(most, n.ml.NumMembers())
	}
	return most
}
