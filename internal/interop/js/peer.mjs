// Answers one JSON request per line: seal or open a token with one of the
// libraries. Keys are PASERK, payloads are objects.
import { createInterface } from 'node:readline'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { PublicProtocol } from 'paseto'
import * as v2public from 'paseto/v2/public'
import * as v4public from 'paseto/v4/public'
import { V2, V4 } from 'paseto-3'
import * as ts from 'paseto-ts/v4'

const bytes = (text) => new TextEncoder().encode(text)
const text = (b) => (typeof b === 'string' ? b : new TextDecoder().decode(b))

const signed = (f) => {
  const p = new PublicProtocol(f.SignFactory, f.VerifyFactory, f.ImportPublicKeyFactory, f.ImportSecretKeyFactory)
  return {
    seal: async (r, opts) => p.Sign(await p.ImportSecretKey(r.key), r.payload, { ...opts, addIssuedAt: false }),
    open: async (r, opts) => p.Verify(await p.ImportPublicKey(r.key), r.token, opts),
  }
}

// paseto 4: signed tokens. It brings no ciphers for the local ones of versions 2 and 4.
const four = { 'v2.public': signed(v2public), 'v4.public': signed(v4public) }
const withFour = (op) => async (r) => {
  const opts = { footer: bytes(r.footer) }
  if (r.protocol.startsWith('v4')) opts.implicitAssertion = bytes(r.assertion)
  const out = await four[r.protocol][op](r, opts)
  return op === 'seal' ? { token: out } : { payload: out.claims, footer: text(out.footer) }
}

// paseto 3: signed tokens, with node's own keys.
const raw = (paserk) => Buffer.from(paserk.split('.')[2], 'base64url')
const x = (b) => b.toString('base64url')
const secretKey = (paserk) => {
  const b = raw(paserk)
  return createPrivateKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', d: x(b.subarray(0, 32)), x: x(b.subarray(32)) } })
}
const publicKey = (paserk) => createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x: x(raw(paserk)) } })
const three = { 'v2.public': V2, 'v4.public': V4 }
const withThree = {
  seal: async (r) => ({
    token: await three[r.protocol].sign(r.payload, secretKey(r.key), { footer: r.footer, iat: false, assertion: r.assertion || undefined }),
  }),
  open: async (r) => {
    const out = await three[r.protocol].verify(r.token, publicKey(r.key), { complete: true, assertion: r.assertion || undefined })
    return { payload: out.payload, footer: text(out.footer) }
  },
}

// paseto-ts: version 4.
const withTS = {
  seal: async (r) => {
    const opts = { footer: r.footer, assertion: r.assertion, addIat: false, addExp: false }
    return { token: await (r.protocol === 'v4.local' ? ts.encrypt : ts.sign)(r.key, r.payload, opts) }
  },
  open: async (r) => {
    const out = await (r.protocol === 'v4.local' ? ts.decrypt : ts.verify)(r.key, r.token, { assertion: r.assertion })
    return { payload: out.payload, footer: typeof out.footer === 'object' ? JSON.stringify(out.footer) : out.footer }
  },
}

const libraries = { 'paseto@4': { seal: withFour('seal'), open: withFour('open') }, 'paseto@3': withThree, 'paseto-ts': withTS }

for await (const line of createInterface({ input: process.stdin })) {
  const r = JSON.parse(line)
  let answer
  try {
    answer = await libraries[r.library][r.op](r)
  } catch (err) {
    answer = { error: `${err.name}: ${err.message}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
