// The client of hasura/go-graphql-client: client <its name of the protocol> <URL>,
// told what to do as the clients on Node are.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	graphql "github.com/hasura/go-graphql-client"
)

// order is a line of the input: an operation to begin, or the name of one to end.
type order struct {
	Name      string                 `json:"name"`
	Query     *string                `json:"query"`
	Variables map[string]interface{} `json:"variables"`
	Execute   bool                   `json:"execute"`
}

type message map[string]interface{}

var speaking sync.Mutex

func say(told message) {
	speaking.Lock()
	defer speaking.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatal(err)
	}
}

// telling tells the method of each request.
type telling struct{ http.RoundTripper }

func (t telling) RoundTrip(request *http.Request) (*http.Response, error) {
	say(message{"name": "", "method": request.Method})
	return t.RoundTripper.RoundTrip(request)
}

// operations are the subscriptions by the id that the client gives each.
type operations struct {
	sync.Mutex
	names map[string]string
}

func (o *operations) take(id string) string {
	o.Lock()
	defer o.Unlock()
	name := o.names[id]
	delete(o.names, id)
	return name
}

func main() {
	protocol, url := os.Args[1], os.Args[2]
	begun := operations{names: map[string]string{}}
	executor := graphql.NewClient(url, &http.Client{Transport: telling{http.DefaultTransport}})
	client := graphql.NewSubscriptionClient(strings.Replace(url, "http", "ws", 1)).
		WithProtocol(graphql.SubscriptionProtocolType(protocol)).
		WithRetryDelay(50 * time.Millisecond).
		// By default each event has a goroutine of its own, and they overtake each other.
		WithSyncMode(true).
		WithExitWhenNoSubscription(false).
		OnConnected(func() { say(message{"name": "", "opened": true}) }).
		OnSubscriptionComplete(func(subscription graphql.Subscription) {
			if name := begun.take(subscription.GetID()); name != "" {
				say(message{"name": name, "end": "complete"})
			}
		})
	var running sync.Once
	execute := func(given order) {
		data, err := executor.ExecRaw(context.Background(), *given.Query, given.Variables)
		if err != nil {
			say(message{"name": given.Name, "end": err.Error()})
			return
		}
		say(message{"name": given.Name, "next": message{"data": json.RawMessage(data)}})
		say(message{"name": given.Name, "end": "complete"})
	}
	subscribe := func(given order) {
		begun.Lock()
		defer begun.Unlock()
		id, err := client.Exec(*given.Query, given.Variables, func(data []byte, err error) error {
			if err != nil {
				say(message{"name": given.Name, "end": err.Error()})
			} else {
				say(message{"name": given.Name, "next": message{"data": json.RawMessage(data)}})
			}
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
		begun.names[id] = given.Name
		running.Do(func() {
			go func() { log.Fatal("the client ends: ", client.Run()) }()
		})
	}
	unsubscribe := func(given order) {
		begun.Lock()
		id := ""
		for each, name := range begun.names {
			if name == given.Name {
				id = each
			}
		}
		begun.Unlock()
		begun.take(id)
		if err := client.Unsubscribe(id); err != nil {
			log.Fatal(err)
		}
		say(message{"name": given.Name, "end": "complete"})
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var given order
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			log.Fatal(err)
		}
		switch {
		case given.Query == nil:
			unsubscribe(given)
		case given.Execute:
			go execute(given)
		default:
			subscribe(given)
		}
	}
}
