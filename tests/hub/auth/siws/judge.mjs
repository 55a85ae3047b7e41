// The wallet standard's own verifier as a process: a case a line in, a verdict a line out. Run with the directory
// where the packages of package-lock.json are installed.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'package.json'));
const { createSignInMessageText, verifySignIn } = require('@solana/wallet-standard-util');
const { secp256k1 } = require('@noble/curves/secp256k1');
const { ripemd160 } = require('@noble/hashes/legacy');
const { sha256 } = require('@noble/hashes/sha2');

const bytes = (base64) => new Uint8Array(Buffer.from(base64, 'base64'));

// What a wallet that follows the standard would write for this input.
function write({ input }) {
    return { text: createSignInMessageText(input) };
}

// Whether the standard takes these bytes and this signature for this input.
function verify({ input, signed_message, signature, public_key }) {
    const account = { address: input.address, publicKey: bytes(public_key), chains: [], features: [] };
    const output = { account, signedMessage: bytes(signed_message), signature: bytes(signature) };
    try {
        return { accepted: verifySignIn(input, output) };
    } catch (fault) {
        return { accepted: false, fault: String(fault) };
    }
}

// What Dogecoin Core's verifymessage says of a hash, by other arithmetic than the hub's.
function recover({ hash, signature }) {
    const content = bytes(signature);
    const header = (content[0] - 27) & 7;
    try {
        const point = secp256k1.Signature.fromCompact(content.slice(1))
            .addRecoveryBit(header & 3)
            .recoverPublicKey(bytes(hash));
        const key = point.toRawBytes((header & 4) !== 0);
        return { key_hash: Buffer.from(ripemd160(sha256(key))).toString('hex') };
    } catch (fault) {
        return { key_hash: null, fault: String(fault) };
    }
}

// A signature by a wallet of noble's, deterministic, with the smaller s.
function sign({ hash, private_key, compressed }) {
    const signature = secp256k1.sign(bytes(hash), bytes(private_key));
    const header = 27 + signature.recovery + (compressed ? 4 : 0);
    const content = Buffer.concat([Buffer.from([header]), Buffer.from(signature.toCompactRawBytes())]);
    const key = secp256k1.getPublicKey(bytes(private_key), compressed);
    return { signature: content.toString('base64'), key_hash: Buffer.from(ripemd160(sha256(key))).toString('hex') };
}

const tasks = { write, verify, recover, sign };

for await (const line of createInterface({ input: process.stdin })) {
    const { task, ...question } = JSON.parse(line);
    process.stdout.write(JSON.stringify(tasks[task](question)) + '\n');
}
