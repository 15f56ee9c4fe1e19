package rolling

// Request is one line to a program.
type Request struct {
	Do      string
	Text    string `json:",omitempty"` // a credential, or a refresh secret
	ID      string `json:",omitempty"` // of a key, a session or a token
	Subject string `json:",omitempty"` // the name of an application
	Account string `json:",omitempty"`
	Scope   string `json:",omitempty"`
	Tag     string `json:",omitempty"`
}

// What a program can be asked to do.
const (
	Issue          = "issue"            // a key for Subject with Scope and Tag
	IssueInAccount = "issue in account" // the same for a subject of Account
	Import         = "import"           // Text, a key of another system, for Subject
	Verify         = "verify"           // Text
	Update         = "update"           // the key with ID to have Scope
	Rotate         = "rotate"           // the key with ID, with an overlap of an hour
	Exchange       = "exchange"         // the key Text for a token with Scope and a refresh secret
	Refresh        = "refresh"          // the refresh secret Text
	Revoke         = "revoke"           // the key, session or token with ID
	RevokeSubject  = "revoke subject"
	Disable        = "disable" // the key with ID
	Enable         = "enable"  // the key with ID
	DisableSubject = "disable subject"
	EnableSubject  = "enable subject"
	DisableAccount = "disable account"
	EnableAccount  = "enable account"
	List           = "list" // the keys of Subject, or those with Tag
)

// The words of a Reply.
const (
	Done     = "done"
	Revoked  = "revoked"  // the credential was
	Disabled = "disabled" // the credential is
	Rejected = "rejected" // for any other reason
	Failed   = "failed"   // it could not be done, or not be found out: no verdict on a credential
	Unknown  = "unknown"  // the program does not know this request
)

// Reply is one line from a program.
type Reply struct {
	Word    string
	Err     string   `json:",omitempty"` // the text of the error, if it was not done
	Text    string   `json:",omitempty"` // the text of a key or of a token
	Next    string   `json:",omitempty"` // a refresh secret
	ID      string   `json:",omitempty"` // of what was issued or verified
	Session string   `json:",omitempty"` // of the token
	Scopes  string   `json:",omitempty"` // of what was verified
	IDs     []string `json:",omitempty"` // of a list
	// Began is when the program began with the request, and By from when on a change holds in
	// every process: Unix time in nanoseconds, which all processes of the machine share.
	Began int64
	By    int64 `json:",omitempty"`
}
