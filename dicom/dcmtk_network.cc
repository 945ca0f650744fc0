/* DCMTK's upper layer behind dcmtk_shim.h: associations. Every entry is wrapped by guarded(). */
#include "dicom/dcmtk_inside.h"
#include "dicom/dcmtk_shim.h"

#include "dicom/guard.h"
#include "dicom/socket.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmnet/assoc.h>
#include <dcmtk/dcmnet/cond.h>
#include <dcmtk/dcmnet/dcmlayer.h>
#include <dcmtk/dcmnet/dcmtrans.h>
#include <dcmtk/dcmtls/tlslayer.h>
#include <dcmtk/dcmtls/tlstrans.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <openssl/ssl.h>
#include <unistd.h>

using namespace inside;

namespace {

/* DCMTK takes a connection that was accepted elsewhere from a global variable, so one thread at a time may hand one
 * over. It asks the transport layer for a connection object as soon as it has read the variable and before it reads
 * from the peer: there the door closes again, and a silent peer holds up nobody. */
std::mutex door;
thread_local bool holds_door = false;
thread_local struct err *request_fault = nullptr; /* of the request that this thread receives */

void open_door(int socket) {
    door.lock();
    holds_door = true;
    dcmExternalSocketHandle.set(socket);
}

bool close_door() {
    const bool held = holds_door;
    if (held) {
        dcmExternalSocketHandle.set(-1);
        holds_door = false;
        door.unlock();
    }
    return held;
}

/* The door for one call of DCMTK: closed after it, also when that threw. */
struct Door {
    explicit Door(int socket) {
        open_door(socket);
    }
    ~Door() {
        close_door();
    }
};

/* The same for a request that is received. */
struct Reception {
    const int socket;
    struct err fault = {};
    explicit Reception(int accepted) : socket(accepted) {
        request_fault = &fault;
        open_door(socket);
    }
    ~Reception() {
        leave();
    }
    void leave() {
        if (close_door())
            close(socket); /* DCMTK did not take it */
        request_fault = nullptr;
    }
};

/* A connection of a server: the first request is checked before DCMTK sees it, dicom/guard.h. */
template <class Base> class Guarded : public Base {
  public:
    using Base::Base;
    ~Guarded() override {
        guard_free(&guard);
    }
    ssize_t read(void *buffer, size_t size) override {
        return guard_read(&guard, buffer, size, read_base, this);
    }
    OFBool networkDataAvailable(int timeout) override {
        return guard_has_bytes(&guard) || Base::networkDataAvailable(timeout);
    }

  private:
    static ssize_t read_base(void *self, void *buffer, size_t size) {
        return static_cast<Guarded *>(self)->Base::read(buffer, size);
    }
    struct guard guard = {GUARD_COLLECTING, nullptr, 0, 0, request_fault};
};

template <class Base> class Layer : public Base {
  public:
    using Base::Base;
    DcmTransportConnection *createConnection(DcmNativeSocketType socket, OFBool secure) override {
        const bool is_server = close_door();
        socket_set_nodelay(socket);
        if (!is_server)
            return Base::createConnection(socket, secure);
        if constexpr (std::is_same<Base, DcmTLSTransportLayer>::value) {
            SSL *ssl = SSL_new(this->getNativeHandle());
            if (ssl != nullptr && SSL_set_fd(ssl, socket) == 1)
                return new Guarded<DcmTLSConnection>(socket, ssl);
            SSL_free(ssl);
            return nullptr;
        }
        return new Guarded<DcmTCPConnection>(socket);
    }
};

bool load_keys(DcmTLSTransportLayer &layer, const struct shim_tls *tls, struct err *err) {
    if (tls->certificate_file != nullptr && tls->key_file != nullptr) {
        if (layer.setPrivateKeyFile(tls->key_file, DCF_Filetype_PEM).bad())
            return err_set(err, ERR_CONFIG, "TLS key %s cannot be read", tls->key_file);
        if (layer.setCertificateFile(tls->certificate_file, DCF_Filetype_PEM).bad() ||
            !layer.checkPrivateKeyMatchesCertificate())
            return err_set(err, ERR_CONFIG, "TLS certificate %s is unreadable or not the key's", tls->certificate_file);
    }
    return tls->ca_file == nullptr || layer.addTrustedCertificateFile(tls->ca_file, DCF_Filetype_PEM).good() ||
           err_set(err, ERR_CONFIG, "TLS CA file %s cannot be read", tls->ca_file);
}

/* Non-Downgrading BCP 195 TLS Secure Transport Connection Profile, PS3.15 B.10: TLS 1.2 and better. */
std::unique_ptr<DcmTransportLayer> layer_of(const struct shim_tls *tls, T_ASC_NetworkRole role, struct err *err) {
    if (tls == nullptr)
        return std::make_unique<Layer<DcmTransportLayer>>();
    auto layer = std::make_unique<Layer<DcmTLSTransportLayer>>(role, nullptr, OFFalse);
    if (layer->setTLSProfile(TSP_Profile_BCP195_ND).bad() || layer->activateCipherSuites().bad()) {
        err_set(err, ERR_CONFIG, "TLS profile BCP 195 ND is not available");
        return nullptr;
    }
    if (!load_keys(*layer, tls, err))
        return nullptr;
    layer->setCertificateVerification(tls->require_peer_certificate ? DCV_requireCertificate
                                      : tls->ca_file != nullptr     ? DCV_checkCertificate
                                                                    : DCV_ignoreCertificate);
    return layer;
}

/* An association of DCMTK behind the C handle, which has no members of its own. */
T_ASC_Association *own(const struct shim_dul *dul) {
    return reinterpret_cast<T_ASC_Association *>(const_cast<struct shim_dul *>(dul));
}

bool network_failed(struct err *err, const char *what, const OFCondition &condition) {
    const bool is_network = condition == DUL_NETWORKCLOSED || condition == DUL_READTIMEOUT ||
                            condition == DUL_PEERABORTEDASSOCIATION || condition.code() == DULC_TCPIOERROR ||
                            condition.code() == DULC_TCPINITERROR;
    return failed(err, is_network ? ERR_NETWORK : ERR_INPUT, what, condition);
}

} // namespace

struct shim_network {
    T_ASC_Network *dcmtk = nullptr;
    std::unique_ptr<DcmTransportLayer> layer;
    bool secure = false;
    int timeout_s = 0;
};

struct shim_network *shim_network_new(const struct shim_tls *tls, int listener, int timeout_s, struct err *err) {
    struct shim_network *network = nullptr;
    const bool done = guarded(err, [&] {
        const T_ASC_NetworkRole role = listener >= 0 ? NET_ACCEPTOR : NET_REQUESTOR;
        if (!set_up(err))
            return false;
        network = new shim_network;
        network->secure = tls != nullptr;
        network->timeout_s = timeout_s;
        network->layer = layer_of(tls, role, err);
        if (!network->layer)
            return false;
        dcmSocketReceiveTimeout.set(timeout_s);
        dcmSocketSendTimeout.set(timeout_s);
        dcmConnectionTimeout.set(timeout_s);
        OFCondition condition = EC_Normal;
        {
            const Door open(listener); /* with a socket in it, DCMTK opens none of its own */
            condition = ASC_initializeNetwork(role, 0, timeout_s, &network->dcmtk);
        }
        condition = condition.good() ? ASC_setTransportLayer(network->dcmtk, network->layer.get(), 0) : condition;
        return condition.good() || failed(err, ERR_INTERNAL, "DICOM network cannot be set up", condition);
    });
    if (!done) {
        shim_network_free(network);
        network = nullptr;
    }
    return network;
}

void shim_network_free(struct shim_network *network) {
    guarded(nullptr, [&] {
        if (network != nullptr)
            ASC_dropNetwork(&network->dcmtk);
        delete network;
        return true;
    });
}

struct shim_dul *shim_dul_receive(struct shim_network *network, int socket, uint32_t pdu_bytes,
                                  struct shim_request *out, struct err *err) {
    T_ASC_Association *association = nullptr;
    const bool done = guarded(err, [&] {
        char name[DUL_LEN_NAME + 1] = "";
        Reception reception(socket);
        const OFCondition condition = ASC_receiveAssociation(network->dcmtk, &association, long(pdu_bytes), nullptr,
                                                             nullptr, network->secure, DUL_NOBLOCK, network->timeout_s);
        reception.leave();
        if (reception.fault.kind != ERR_NONE)
            return err_set(err, reception.fault.kind, "%s", reception.fault.text);
        if (condition.bad())
            return network_failed(err, "no association", condition);
        ASC_getApplicationContextName(association->params, name, sizeof name);
        if ((out->said_nothing = name[0] == '\0')) /* DCMTK calls a closed connection a success */
            return err_set(err, ERR_NETWORK, "no association: closed without a request");
        ASC_getAPTitles(association->params, out->calling_aet, sizeof out->calling_aet, out->called_aet,
                        sizeof out->called_aet, nullptr, 0);
        out->is_dicom = strcmp(name, UID_StandardApplicationContext) == 0;
        return true;
    });
    if (!done) {
        shim_dul_free(reinterpret_cast<struct shim_dul *>(association), false);
        return nullptr;
    }
    return reinterpret_cast<struct shim_dul *>(association);
}

bool shim_dul_accept(struct shim_dul *dul, const char *const *sop_class_uids, size_t sop_classes,
                     const char *const *transfer_syntax_uids, size_t transfer_syntaxes, struct err *err) {
    return guarded(err, [&] {
        std::vector<const char *> classes(sop_class_uids, sop_class_uids + sop_classes);
        std::vector<const char *> syntaxes(transfer_syntax_uids, transfer_syntax_uids + transfer_syntaxes);
        const char *verification[] = {UID_VerificationSOPClass};
        const char *plain[] = {UID_LittleEndianExplicitTransferSyntax, UID_LittleEndianImplicitTransferSyntax};
        T_ASC_Parameters *parameters = own(dul)->params;
        OFCondition condition = ASC_acceptContextsWithPreferredTransferSyntaxes(parameters, verification, 1, plain, 2);
        if (condition.good())
            condition = ASC_acceptContextsWithPreferredTransferSyntaxes(parameters, classes.data(), int(sop_classes),
                                                                        syntaxes.data(), int(transfer_syntaxes));
        /* Who reports on a commitment opens an association as SCP: PS3.4 J.3.3, PS3.7 D.3.3.4. Some do not negotiate
         * that. */
        for (int i = 0; condition.good() && i < ASC_countPresentationContexts(parameters); i++) {
            T_ASC_PresentationContext context;
            condition = ASC_getPresentationContext(parameters, i, &context);
            if (condition.good() && strcmp(context.abstractSyntax, UID_StorageCommitmentPushModelSOPClass) == 0)
                condition = ASC_acceptPresentationContext(parameters, context.presentationContextID, plain[1],
                                                          ASC_SC_ROLE_SCP, OFTrue);
        }
        condition = condition.good() ? ASC_acknowledgeAssociation(own(dul)) : condition;
        return condition.good() || network_failed(err, "association cannot be acknowledged", condition);
    });
}

void shim_dul_reject(struct shim_dul *dul, int result, int source, int reason) {
    guarded(nullptr, [&] {
        const T_ASC_RejectParameters why = {T_ASC_RejectParametersResult(result), T_ASC_RejectParametersSource(source),
                                            T_ASC_RejectParametersReason(source << 8 | reason)};
        return ASC_rejectAssociation(own(dul), &why).good();
    });
}

struct shim_dul *shim_dul_connect(struct shim_network *network, const struct shim_call *call,
                                  const struct shim_proposal *proposals, size_t count, struct err *err) {
    T_ASC_Association *association = nullptr;
    T_ASC_Parameters *parameters = nullptr; /* the association's, as soon as there is one */
    const bool done = guarded(err, [&] {
        OFCondition condition = ASC_createAssociationParameters(&parameters, long(call->pdu_bytes));
        if (condition.bad())
            return failed(err, ERR_MEMORY, "association", condition);
        ASC_setAPTitles(parameters, call->calling_aet, call->called_aet, nullptr);
        ASC_setPresentationAddresses(parameters, "localhost", call->address);
        ASC_setTransportLayerType(parameters, network->secure);
        for (size_t i = 0; i < count && condition.good(); i++) {
            const char *syntaxes[] = {proposals[i].transfer_syntax_uid};
            condition = ASC_addPresentationContext(parameters, T_ASC_PresentationContextID(2 * i + 1),
                                                   proposals[i].sop_class_uid, syntaxes, 1);
        }
        if (condition.good())
            condition = ASC_requestAssociation(network->dcmtk, parameters, &association, nullptr, nullptr, DUL_NOBLOCK,
                                               network->timeout_s);
        if (condition == DUL_ASSOCIATIONREJECTED)
            return err_set(err, ERR_DENIED, "%s rejects the association (source %d, reason %d)", call->called_aet,
                           parameters->DULparams.resultSource, parameters->DULparams.diagnostic);
        return condition.good() || failed(err, ERR_NETWORK, "no association", condition);
    });
    if (!done) {
        if (association == nullptr && parameters != nullptr)
            ASC_destroyAssociationParameters(&parameters);
        shim_dul_free(reinterpret_cast<struct shim_dul *>(association), false);
        return nullptr;
    }
    return reinterpret_cast<struct shim_dul *>(association);
}

bool shim_dul_read(struct shim_dul *dul, int timeout_s, struct shim_pdv *out, struct err *err) {
    return guarded(err, [&] {
        DUL_ASSOCIATIONKEY **key = &own(dul)->DULassociation;
        DUL_PDV pdv = {};
        OFCondition condition = DUL_NextPDV(key, &pdv);
        if (condition.bad()) {
            condition = DUL_ReadPDVs(key, nullptr, DUL_NOBLOCK, timeout_s);
            if (condition == DUL_PEERREQUESTEDRELEASE || condition == DUL_PEERABORTEDASSOCIATION) {
                *out = {condition == DUL_PEERREQUESTEDRELEASE ? SHIM_PDV_RELEASE : SHIM_PDV_ABORT, 0, true, nullptr, 0};
                return true;
            }
            if (condition == DUL_PDATAPDUARRIVED || condition.good())
                condition = DUL_NextPDV(key, &pdv);
        }
        if (condition.bad())
            return network_failed(err, "reading", condition);
        *out = {pdv.pdvType == DUL_COMMANDPDV ? SHIM_PDV_COMMAND : SHIM_PDV_DATASET, pdv.presentationContextID,
                bool(pdv.lastPDV), static_cast<const uint8_t *>(pdv.data), size_t(pdv.fragmentLength)};
        return true;
    });
}

bool shim_dul_write(struct shim_dul *dul, uint8_t context_id, enum shim_pdv_kind kind, const struct bytes *data,
                    struct err *err) {
    return guarded(err, [&] {
        DUL_PDV pdv = {data->size, context_id, kind == SHIM_PDV_COMMAND ? DUL_COMMANDPDV : DUL_DATASETPDV, OFTrue,
                       data->data};
        DUL_PDVLIST list = {};
        list.count = 1;
        list.pdv = &pdv;
        const OFCondition condition = DUL_WritePDVs(&own(dul)->DULassociation, &list);
        return condition.good() || failed(err, ERR_NETWORK, "sending", condition);
    });
}

bool shim_dul_context(const struct shim_dul *dul, uint8_t context_id, char sop_class_uid[DICOM_UID_SIZE],
                      char transfer_syntax_uid[DICOM_UID_SIZE]) {
    return guarded(nullptr, [&] {
        T_ASC_PresentationContext context;
        if (ASC_findAcceptedPresentationContext(own(dul)->params, context_id, &context).bad())
            return false;
        snprintf(sop_class_uid, DICOM_UID_SIZE, "%s", context.abstractSyntax);
        snprintf(transfer_syntax_uid, DICOM_UID_SIZE, "%s", context.acceptedTransferSyntax);
        return true;
    });
}

bool shim_dul_release(struct shim_dul *dul, enum shim_side side, struct err *err) {
    return guarded(err, [&] {
        const OFCondition condition =
            side == SHIM_SIDE_SERVER ? ASC_acknowledgeRelease(own(dul)) : ASC_releaseAssociation(own(dul));
        return condition.good() || failed(err, ERR_NETWORK, "release", condition);
    });
}

void shim_dul_free(struct shim_dul *dul, bool abort) {
    guarded(nullptr, [&] {
        T_ASC_Association *association = own(dul);
        if (abort)
            ASC_abortAssociation(association);
        ASC_dropAssociation(association);
        return ASC_destroyAssociation(&association).good();
    });
}
