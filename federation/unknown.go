package federation

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/branchline-video/branchline"
)

// maxMore bounds what is kept of what is not known, for each message: it is stored with what it belongs to.
const maxMore = 16 << 10

// moreOf returns what a newer peer told with the message that this node does not know: a message of its type with
// nothing but unknown fields, each in its place, or nil if there are none or
// too many.
func moreOf(m proto.Message) branchline.More {
	if known(m.ProtoReflect()) {
		return nil
	}
	rest := m.ProtoReflect().New()
	strange(rest, m.ProtoReflect())
	b, err := proto.Marshal(rest.Interface())
	if err != nil || len(b) > maxMore { // it has no text, which alone can be wrong
		return nil
	}
	return b
}

// known reports whether neither the message nor any in it has unknown fields.
func known(m protoreflect.Message) bool {
	all := len(m.GetUnknown()) == 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		all = all && (f.Message() == nil || f.IsList() && allKnown(v.List()) || !f.IsList() && known(v.Message()))
		return all
	})
	return all
}

func allKnown(list protoreflect.List) bool {
	for i := range list.Len() {
		if !known(list.Get(i).Message()) {
			return false
		}
	}
	return true
}

// strange copies the unknown fields of a message, and of those in it that have some, to rest.
func strange(rest, m protoreflect.Message) {
	rest.SetUnknown(m.GetUnknown())
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsList() && allKnown(v.List()):
		case f.IsList():
			for i := range v.List().Len() {
				strange(rest.Mutable(f).List().AppendMutable().Message(), v.List().Get(i).Message())
			}
		case !known(v.Message()):
			strange(rest.Mutable(f).Message(), v.Message())
		}
		return true
	})
}

// withMore gives the message back what moreOf took of it. Where there are no longer as many in a list, what was
// unknown of those is lost.
func withMore(m proto.Message, more branchline.More) {
	if len(more) == 0 {
		return
	}
	rest := m.ProtoReflect().New()
	if proto.Unmarshal(more, rest.Interface()) == nil {
		restore(m.ProtoReflect(), rest)
	}
}

func restore(m, rest protoreflect.Message) {
	if unknown := rest.GetUnknown(); len(unknown) > 0 {
		m.SetUnknown(unknown)
	}
	rest.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil || !m.Has(f) {
			return true
		}
		if !f.IsList() {
			restore(m.Mutable(f).Message(), v.Message())
			return true
		}
		list := m.Mutable(f).List()
		for i := 0; list.Len() == v.List().Len() && i < list.Len(); i++ {
			restore(list.Get(i).Message(), v.List().Get(i).Message())
		}
		return true
	})
}
