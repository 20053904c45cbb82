// gqlgen over WebSockets, by either of its subprotocols, and over server-sent events:
// server <which> <port, 0 for any>.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"interop/server/graph"
	"interop/server/tick"
)

// asked is what the server was asked for, and how many streams of ticks it has.
type asked struct {
	sync.Mutex
	Methods map[string]int          `json:"methods"`
	Readers int                     `json:"readers"`
	Inits   []transport.InitPayload `json:"inits"`
}

func (a *asked) addReader(count int) {
	a.Lock()
	defer a.Unlock()
	a.Readers += count
}

type resolver struct{ asked *asked }

func (r *resolver) Query() graph.QueryResolver               { return &query{} }
func (r *resolver) Subscription() graph.SubscriptionResolver { return &subscription{r.asked} }

type query struct{}

func (*query) Hello(context.Context) (*string, error) {
	hello := "hello"
	return &hello, nil
}

type subscription struct{ asked *asked }

func (s *subscription) Ticks(ctx context.Context, upto int, everyMs *int) (<-chan *tick.Tick, error) {
	pause := 0
	if everyMs != nil {
		pause = *everyMs
	}
	s.asked.addReader(1)
	return numbers(ctx, upto, pause, -1, func() { s.asked.addReader(-1) }), nil
}

func (*subscription) Faulty(ctx context.Context) (<-chan *tick.Tick, error) {
	return numbers(ctx, 3, 20, 1, func() {}), nil
}

func numbers(ctx context.Context, upto, everyMs, faulty int, ended func()) <-chan *tick.Tick {
	stream := make(chan *tick.Tick)
	go func() {
		defer ended()
		defer close(stream)
		for number := range upto {
			next := &tick.Tick{Value: number, Label: fmt.Sprintf("tick %d", number), IsFaulty: number == faulty}
			select {
			case stream <- next:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(time.Duration(everyMs) * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}()
	return stream
}

func main() {
	subprotocol := "graphql-transport-ws"
	if strings.HasSuffix(os.Args[1], "legacy protocol") {
		subprotocol = "graphql-ws"
	}
	told := &asked{Methods: map[string]int{}, Inits: []transport.InitPayload{}}
	schema := graph.NewExecutableSchema(graph.Config{Resolvers: &resolver{told}})
	server := handler.New(schema)
	server.AddTransport(transport.Websocket{
		KeepAlivePingInterval: 100 * time.Millisecond, // the legacy protocol's
		InitFunc: func(ctx context.Context, init transport.InitPayload) (context.Context, *transport.InitPayload, error) {
			told.Lock()
			defer told.Unlock()
			told.Inits = append(told.Inits, init)
			if init["refuse"] == true {
				// By default it closes with 1000, as for a connection that ends well.
				ctx = transport.AppendCloseReason(transport.WithWebsocketCloseCode(ctx, 4403), "Forbidden")
				return ctx, nil, errors.New("Forbidden")
			}
			return ctx, nil, nil
		},
	})
	server.AddTransport(transport.SSE{})
	server.AddTransport(transport.GET{})
	server.AddTransport(transport.POST{})
	http.HandleFunc("/asked", func(response http.ResponseWriter, _ *http.Request) {
		told.Lock()
		defer told.Unlock()
		_ = json.NewEncoder(response).Encode(told)
	})
	http.HandleFunc("/graphql", func(response http.ResponseWriter, request *http.Request) {
		told.Lock()
		told.Methods[request.Method]++
		told.Unlock()
		// It chooses the legacy one where a client offers both.
		if request.Header.Get("Upgrade") != "" {
			request.Header.Set("Sec-WebSocket-Protocol", subprotocol)
		}
		server.ServeHTTP(response, request)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("ready: %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, nil))
}
