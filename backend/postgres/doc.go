// Package postgres is a store in a PostgreSQL database.
package postgres
