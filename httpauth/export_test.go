package httpauth

import "time"

// Timeout is how long a fetch may take.
func (c *KeyClient) Timeout() time.Duration { return c.client.Timeout }
