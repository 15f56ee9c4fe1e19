// Package etcd is a store in an etcd cluster.
package etcd
